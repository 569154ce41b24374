"""Techniques for kernel problems, a module a lane. Each is a template and one problem that it fits."""
