"""The LLM researcher: any OpenAI-compatible endpoint. What it says is kept as rows by the loop; here are no rows."""
