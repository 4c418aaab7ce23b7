"""The adapter between cryoemmae and RELION's External jobs: STAR files in, STAR files and job markers out."""
