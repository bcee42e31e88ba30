"""``koen-batch plan``: what a job would take, before it starts."""
