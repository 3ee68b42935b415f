"""One file per public format; each turns raw files into the tables of :mod:`onesearch.data.records`."""
