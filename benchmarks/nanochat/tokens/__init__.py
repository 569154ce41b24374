"""The data of the GPU lane: text becomes tokens. Protected, free of torch; see prepare.py for what is written."""
