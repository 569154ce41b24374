"""Bring your own agent: an HTTP API and an MCP server over the same operations.

schemas     what goes in and comes out, the source of the OpenAPI document and of the tools' arguments
reading     projects, threads, files, experiments, lessons: what a token may see
acting      claim, release, begin a thread, submit, wait for the verdict
brief       a project on one page, for an agent that knows nothing of it
http        the routes of version 1 and their errors
mcp         the same as tools
"""
