"""What `efface demo` brings along: its drawings and a small CLIP that knows them."""
