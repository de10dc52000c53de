"""The demo as a Hugging Face Space: everyone may open it."""

from diffusion_classifier.demo import serve

if __name__ == "__main__":
    serve(host="0.0.0.0", port=7860)
