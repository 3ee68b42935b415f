"""Files to a data set: columns and values read, bad rows set aside, what was done to every value counted."""
