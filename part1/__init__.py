"""Palindromes: how long does a recurrent network remember?"""
