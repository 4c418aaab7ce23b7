"""A stand-in for a CryoSPARC instance, for tests: real `.cs` files in a real folder, behind the real protocols."""
