"""Choose a base model: what there is, what its licence allows, whether it fits, and how it is fetched."""
