"""Images: how robust are convolutional networks?"""
