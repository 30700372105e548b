"""Floor 0: errors, grids and volumes, optional packages, provenance. Needs numpy only."""
