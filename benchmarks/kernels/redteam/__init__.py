"""What plays the exploits of this lane: its problem, guards and their removal. No part of the evaluator."""
