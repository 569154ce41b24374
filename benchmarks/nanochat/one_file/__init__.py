"""The public one-file format: `adapt` makes a candidate of such a program, `tree/` is what it then stands in."""
