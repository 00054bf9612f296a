"""The forms that compute a layer, and the choice between them."""
