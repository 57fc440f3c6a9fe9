package auth

// InMemory reports whether questions are answered from memory.
func (a *Auth) InMemory() bool {
	a.index.mu.RLock()
	defer a.index.mu.RUnlock()
	return a.index.view != nil
}
