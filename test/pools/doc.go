// Package pools rushes the pools of a real plane, which is killed meanwhile,
// over a host in memory.
package pools
