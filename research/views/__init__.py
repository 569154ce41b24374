"""The pages: one module a page family. A view fetches with permission, makes one call, renders."""
