"""The starter model's adapter: its examples, its training, and how it comes into the package. See the README."""
