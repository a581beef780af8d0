"""Does it pay: prices, inputs, the cost model, the workbook, sliders."""
