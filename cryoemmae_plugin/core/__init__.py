"""Arrays in, arrays out: the method itself. No paths, no prints, no adapters."""
