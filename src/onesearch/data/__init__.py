"""What enters: items, users, page views, judgments; the dataset on disk, its time split and the shoppers' histories."""
