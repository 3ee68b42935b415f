"""The same functions over tables too large for one process: part by part, by processes here or by Ray on a cluster."""
