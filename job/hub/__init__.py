"""The Hugging Face Hub: its client, and what its errors mean."""
