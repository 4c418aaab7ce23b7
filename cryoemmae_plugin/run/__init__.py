"""Many micrographs: reading ahead, storing, resuming."""
