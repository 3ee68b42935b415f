"""A simulated marketplace: catalogue, shoppers, queries, click and order behaviour, and the truth behind them."""
