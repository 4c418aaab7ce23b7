"""Tables of picks in the formats of other programs: read, convert, merge, compare."""
