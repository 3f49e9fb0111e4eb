"""A policy-gradient agent (REINFORCE, Williams 1992) that learns to balance a pole on a cart."""
from __future__ import annotations

import math

import numpy as np
from _common import arguments, plot

import graphc as torch
import graphc.nn as nn
import graphc.optim as optim
from graphc.distributions import Categorical


class CartPole:
    """The pole on a cart of Barto, Sutton and Anderson (1983): SI units, Euler steps of 0.02 s, force of 10 N either way.

    A state is (position, speed, angle, angular speed), float32. Each step earns 1; an episode ends beyond 2.4 m or 12 degrees,
    or after 500 steps.
    """

    gravity, cart, pole, half_length, force, tau = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02

    def reset(self, seed: int | None = None) -> np.ndarray:
        """A nearly upright start; ``seed`` starts the sequence of episodes over."""
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.state, self.steps = self.random.uniform(-0.05, 0.05, 4), 0
        return self.state.astype(np.float32)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool]:
        """(state, reward, fallen, out of time) after pushing left (0) or right (1)."""
        x, v, angle, w = self.state
        force = self.force if action == 1 else -self.force
        sin, cos, mass = math.sin(angle), math.cos(angle), self.cart + self.pole
        push = (force + self.pole * self.half_length * w * w * sin) / mass
        turn = (self.gravity * sin - cos * push) / (self.half_length * (4 / 3 - self.pole * cos * cos / mass))
        slide = push - self.pole * self.half_length * turn * cos / mass
        self.state = self.state + self.tau * np.array([v, slide, w, turn])
        self.steps += 1
        fallen = bool(abs(self.state[0]) > 2.4 or abs(self.state[2]) > math.radians(12))
        return self.state.astype(np.float32), 1.0, fallen, self.steps >= 500


def mlp(sizes: list[int], activation=nn.Tanh, output_activation=nn.Identity):
    """Linear layers with an activation after each."""
    layers = []
    for j in range(len(sizes) - 1):
        layers += [nn.Linear(sizes[j], sizes[j + 1]), (activation if j < len(sizes) - 2 else output_activation)()]
    return nn.Sequential(*layers)


def reward_to_go(rewards: list[float], gamma: float) -> list[float]:
    """For each step, what was earned from there on, later rewards counting less."""
    out, total = [], 0.0
    for r in reversed(rewards):
        total = r + gamma * total
        out.append(total)
    return out[::-1]


def main() -> None:
    p = arguments("REINFORCE on a cart with a pole", epochs=32, batch_size=500, hidden=32, lr=2e-2, gamma=0.98)
    args = p.parse_args()
    if args.smoke:
        args.epochs, args.batch_size = 2, 60
    torch.manual_seed(args.seed)
    env = CartPole()
    logits_net = mlp([4, args.hidden, 2]).to(args.device)
    optimizer = optim.Adam(logits_net.parameters(), lr=args.lr)

    def get_policy(obs):
        return Categorical(logits=logits_net(obs))

    def get_action(obs) -> int:
        with torch.no_grad():
            return get_policy(torch.as_tensor(obs, device=args.device)).sample().item()

    def step(obs, act, weights):
        optimizer.zero_grad()
        loss = -(get_policy(obs).log_prob(act) * weights).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    if args.compile:
        step = torch.compile(step)
    curve = []
    obs = env.reset(seed=args.seed)
    for epoch in range(1, args.epochs + 1):
        batch_obs, batch_acts, batch_weights, lengths, rewards = [], [], [], [], []
        while True:  # whole episodes, until there are enough steps
            batch_obs.append(obs)
            act = get_action(obs)
            batch_acts.append(act)
            obs, reward, fallen, late = env.step(act)
            rewards.append(reward)
            if fallen or late:
                batch_weights += reward_to_go(rewards, args.gamma)
                lengths.append(len(rewards))
                obs, rewards = env.reset(), []
                if len(batch_obs) >= args.batch_size:
                    break
        weights = torch.tensor(batch_weights, dtype=torch.float32)
        weights = (weights - weights.mean()) / (weights.std() + 1e-6)
        loss = step(torch.as_tensor(np.array(batch_obs), device=args.device), torch.tensor(batch_acts, device=args.device),
                    weights.to(args.device)).item()
        curve.append(sum(lengths) / len(lengths))
        print(f"epoch {epoch}: loss {loss:.6f}, return {curve[-1]:.2f}, episodes {len(lengths)}")
    plot(curve, args.plot)


if __name__ == "__main__":
    main()
