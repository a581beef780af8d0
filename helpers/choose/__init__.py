"""Choose a base model: what its licence allows, whether it fits, and how it is fetched."""
