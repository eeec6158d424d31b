"""How the job talks to the Hugging Face Hub."""
