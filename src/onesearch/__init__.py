"""The open implementation of OneSearch: generative e-commerce search from catalogue and logs to a served engine."""
