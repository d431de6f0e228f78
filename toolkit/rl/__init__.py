"""Reinforcement learning on composite rewards: rollouts, advantages, losses, KL control, the PPO loop."""
