"""What a request passes between its connection and its route."""
