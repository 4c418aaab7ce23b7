"""What the three command lines share: messages, options from settings, and how a command ends."""
