// Package storm makes and removes ports at random, several at a time, while the daemon is killed at random: each call has to have the
// outcome that what was acknowledged before says, and in the end there is what was acknowledged, and nothing else.
package storm
