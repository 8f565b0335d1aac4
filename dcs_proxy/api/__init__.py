"""The control plane over HTTPS: requests, retries, replies, and the API key."""
