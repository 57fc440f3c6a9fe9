// Package hosts tests planes and hosts that meet over a network, each host
// where the plane cannot reach it.
package hosts
