"""cryoemmae: particle picking without labels."""
