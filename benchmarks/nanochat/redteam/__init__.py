"""What plays the exploits of this lane: facts of the host, guards and their removal. No part of the evaluator."""
