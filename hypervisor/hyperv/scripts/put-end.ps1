# consort hyper-v protocol 1: put-end

# put-end gives an uploaded file its name once its hash is right.
function Invoke-Request($a) {
    $path = Get-Stored $a.file
    $part = '{0}.part' -f $path
    $note = '{0}.note' -f $path
    if (-not (Test-Path -LiteralPath $part)) {
        if (Test-Path -LiteralPath $path) { return @{} }
        Stop-With 'conflict' ('nothing was uploaded for {0}' -f $a.file)
    }
    $got = (Get-FileHash -LiteralPath $part -Algorithm SHA256).Hash.ToLowerInvariant()
    if ($got -cne $a.sha256) {
        Remove-Item -LiteralPath $part, $note -Force
        Stop-With 'unavailable' ('{0} arrived damaged; send it again' -f $a.file)
    }
    Move-Item -LiteralPath $part -Destination $path -Force
    if ($a.readOnly) { Set-ItemProperty -LiteralPath $path -Name IsReadOnly -Value $true }
    Remove-Item -LiteralPath $note -Force
    @{}
}
