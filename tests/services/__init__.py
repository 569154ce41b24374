"""Tests against real services, each started for its tests alone."""
