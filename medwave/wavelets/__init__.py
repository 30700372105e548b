"""wavelets"""
