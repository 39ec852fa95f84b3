"""How to look at the world safely. The only place that catches OS and driver errors."""
