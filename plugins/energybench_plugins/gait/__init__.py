"""From walking people in video to samples of optical flow, and people made up for machines that have no such video."""
