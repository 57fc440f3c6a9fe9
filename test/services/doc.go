// Package services puts a real service on real machines, asks much of it and
// harms it, and looks at what its users get and what is decided.
package services
