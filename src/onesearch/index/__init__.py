"""SidIndex: sorted semantic IDs, their trie as integer arrays, filters, adding and removing items."""
