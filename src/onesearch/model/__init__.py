"""The generative model: vocabulary, prompt, behaviour features, backbones, output heads."""
