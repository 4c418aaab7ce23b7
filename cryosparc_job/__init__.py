"""The adapter between cryoemmae and CryoSPARC's external jobs: exposures in, particle locations out."""
