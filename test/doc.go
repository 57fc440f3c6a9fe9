// Package test runs the whole of Consort as people run it: the binary, a real
// QEMU with a real Debian guest, and the clients of others.
package test
