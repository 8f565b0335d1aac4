"""What ``dcs-proxy doctor`` looks at: one function a check, grouped by what they look at."""
