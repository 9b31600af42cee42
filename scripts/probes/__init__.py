"""What encoders and decoders have learnt."""
